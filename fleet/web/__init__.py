"""The admin API, downloads and training rounds over HTTP, and the client of the API."""
