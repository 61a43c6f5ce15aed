"""Programs that use fastrdb as a service would."""
