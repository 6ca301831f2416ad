"""All Dagster code, a module a stage, thin: read, call the stage, write, attach metadata."""
