"""The two addresses of the naive project."""

from django.http import HttpRequest, HttpResponse
from django.urls import path

from benchmarks.naive.views import PaymentView


def healthz(_: HttpRequest) -> HttpResponse:
    """Answer that the process is up."""
    return HttpResponse("ok")


urlpatterns = [path("healthz", healthz), path("v1/payments", PaymentView.as_view())]
