"""A procedural city, drawn from a seed, and its images: as a camera sees it, and as an imaging radar does."""

from geomatch.simulation.backscatter import Scene
from geomatch.simulation.city import City, make_city
from geomatch.simulation.dataset import Georeference, SimulatedCity, StripTruth, simulate_city
from geomatch.simulation.materials import Material
from geomatch.simulation.optical import Camera, render_optical
from geomatch.simulation.sar import Frame, Look, Radar, render_north_up, render_sar
from geomatch.simulation.strips import Flight, draw_frame

__all__ = [
    "Camera",
    "City",
    "Flight",
    "Frame",
    "Georeference",
    "Look",
    "Material",
    "Radar",
    "Scene",
    "SimulatedCity",
    "StripTruth",
    "draw_frame",
    "make_city",
    "render_north_up",
    "render_optical",
    "render_sar",
    "simulate_city",
]
