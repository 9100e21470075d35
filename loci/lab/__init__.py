"""The lab: evidence. Real sets, measures, claims with controls."""
