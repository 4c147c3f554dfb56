"""The command API: `/admin/v1/...`, JSON in and out."""
