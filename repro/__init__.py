"""The paper's reproduction: grids of runs, the studies that they run, and the reports made of them.

Imports point from here to `vsmd`, never back.
"""
