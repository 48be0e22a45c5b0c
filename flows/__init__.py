"""Prefect flows, thin: when, in which order, and what a person sees of it."""
