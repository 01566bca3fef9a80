"""The dashboard's pages. Each works by full reload; where htmx asks, the live part alone is answered."""
