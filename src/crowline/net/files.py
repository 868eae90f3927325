"""The doors of file input and output: what the rooms above need to read and write files safely."""

from crowline.net.file_problems import DiskFull, human_size, local_problem
from crowline.net.file_reader import FileReader
from crowline.net.file_writer import FileWriter
from crowline.net.safe_folder import IncomingFile, SafeFolder
from crowline.net.source_tree import SourceTree

__all__ = [
    "DiskFull",
    "FileReader",
    "FileWriter",
    "IncomingFile",
    "SafeFolder",
    "SourceTree",
    "human_size",
    "local_problem",
]
