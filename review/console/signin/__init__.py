"""Who asks, and what they may do: sessions, roles, tokens, a trusted proxy, OpenID Connect."""
