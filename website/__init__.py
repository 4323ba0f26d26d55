"""The documentation as a site: the repository's own pages, with a navigation and a search. `just site` builds it."""
