"""What people see and are woken by: dashboards and rules as code."""
