"""Local matching of a SAR image with an optical one: keypoints, descriptors, tie points, and the fit they support."""
