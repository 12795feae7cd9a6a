"""Okta, Box and Slack on loopback, strict and stateful: to try rules and policies without a tenant, and what the tests act upon."""
