"""A small service in the shape of FastRDB's users: models, schemas, cruds and the app, a module each."""
