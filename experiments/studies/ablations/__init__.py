"""The paper's claims at small scale."""
