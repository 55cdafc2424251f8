"""What others have published, as data: facts with their source, so that a comparison needs nothing but this package."""
