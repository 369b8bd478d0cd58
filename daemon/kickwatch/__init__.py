"""kickwatch: does creating a container here make the kernel interrupt every other CPU, and did it use to?"""

__version__ = "0.1.0"
