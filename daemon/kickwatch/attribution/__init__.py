"""From a function and a call stack to words: why a request was sent, which part of the kernel asked, and on which path.

Pure. Imports `model` alone; never `observe`, which takes the stacks.
"""
