"""Commands about models and catalogues."""
