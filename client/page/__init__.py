"""The wearer's page: served by the wearable over HTTPS, used from a paired phone."""
