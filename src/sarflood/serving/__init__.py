"""The service, its uploads, and the bundles that it is shipped in."""
