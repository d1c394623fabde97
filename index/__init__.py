"""The job that turns an orthomosaic into an index."""
