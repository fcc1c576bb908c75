"""HTML for notebooks and reports, built as trees, so that every text in it is escaped."""
