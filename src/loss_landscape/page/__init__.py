"""The page that results are looked at with: one HTML file, without a server and without a network."""
