"""The doors of file input and output: what the rooms above need to read and write files safely."""

from crowline.net.file_problems import DiskFull, human_size, local_problem
from crowline.net.file_reader import FileReader
from crowline.net.file_writer import FileWriter
from crowline.net.found_file import Found
from crowline.net.incoming_file import IncomingFile
from crowline.net.safe_folder import SafeFolder
from crowline.net.source_tree import SourceTree

__all__ = [
    "DiskFull",
    "FileReader",
    "FileWriter",
    "Found",
    "IncomingFile",
    "SafeFolder",
    "SourceTree",
    "human_size",
    "local_problem",
]
