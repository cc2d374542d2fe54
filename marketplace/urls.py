"""Every address of the service: the API, its documentation, the admin and the pages for people."""

from typing import Final

from django.contrib import admin
from django.urls import include, path
from drf_spectacular.views import SpectacularSwaggerView

from marketplace.api import metrics
from marketplace.web import consenting, pages, reserving

urlpatterns: Final = [
    path("", pages.landing, name="landing"),
    path("agents", pages.catalogue, name="catalogue"),
    path("approvals/<uuid:approval_id>/<str:token>", consenting.answer, name="approval"),
    path("reserves", reserving.page, name="reserves"),
    path("admin/", admin.site.urls),
    path("metrics", metrics.show, name="metrics"),
    path("docs", SpectacularSwaggerView.as_view(url_name="openapi"), name="docs"),
    path("", include("marketplace.api.urls")),
]

handler400 = "marketplace.api.docs.bad_request"
handler404 = "marketplace.api.docs.not_found"
handler500 = "marketplace.api.docs.server_error"
