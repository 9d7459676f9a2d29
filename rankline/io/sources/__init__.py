"""Raw data: where a source is, which files hold its tables, and one digest of their contents."""

from rankline.io.sources.contents import files_digest as files_digest
from rankline.io.sources.contents import source_digest as source_digest
from rankline.io.sources.files import COMPRESSION_SUFFIXES as COMPRESSION_SUFFIXES
from rankline.io.sources.files import File as File
from rankline.io.sources.files import Files as Files
from rankline.io.sources.files import describe_folder as describe_folder
from rankline.io.sources.files import is_hidden as is_hidden
from rankline.io.sources.files import match_files as match_files
from rankline.io.sources.files import source_filesystem as source_filesystem
from rankline.io.sources.files import translate_errors as translate_errors
from rankline.io.sources.formats import BETWEEN_PLACES as BETWEEN_PLACES
from rankline.io.sources.formats import PLACE_COLUMN as PLACE_COLUMN
from rankline.io.sources.formats import RECBOLE_NAME as RECBOLE_NAME
from rankline.io.sources.formats import SPLIT_NAMES as SPLIT_NAMES
from rankline.io.sources.formats import find_files as find_files
from rankline.io.sources.settings import MASK as MASK
from rankline.io.sources.settings import Source as Source
from rankline.io.sources.settings import Tables as Tables
from rankline.io.sources.settings import is_file_database as is_file_database
from rankline.io.sources.settings import mask_passwords as mask_passwords
from rankline.io.sources.table_logs import table_roots as table_roots
