"""Fraud detection as one loop; the stages are described in ARCHITECTURE.md."""
