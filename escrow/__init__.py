"""Money: pools, sessions, payments, holds, invoices, disputes. Knows nothing of HTTP, agents or tasks."""
