"""geomatch finds where a SAR image was taken on an optical map."""
