"""geomatch finds where a SAR image was taken on an optical map.

>>> import geomatch
>>> geomatch.build_index("city.tif", "city.gmi")  # doctest: +SKIP
>>> geomatch.Locator.open("city.gmi").locate("strip.tif")  # doctest: +SKIP
"""
