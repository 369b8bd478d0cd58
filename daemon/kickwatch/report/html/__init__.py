"""The report as one HTML file that needs no network: plots by Vega-Lite, each with a table, and the exact data.

Imports `report` and the extra `report` (vl-convert-python, for Vega's bundle); the daemon never imports it.
"""
