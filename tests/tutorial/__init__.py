"""A small service in the shape in which users of FastRDB write theirs: one module each for models, schemas, cruds, app."""
