"""A program for another process, or another machine: what the observers have lost, and the remedies, at each call."""

# The first call is for what it imports, which may need what a test then takes away.
LOST = """
import asyncio, json
from kickwatch.observe.observatory import Observatory

def lost():
    observatory = asyncio.run(Observatory.open())
    observatory.close()
    return [[loss.what, loss.remedy] for loss in observatory.present_losses]

lost()
"""
