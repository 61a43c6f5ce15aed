"""One object per table, by the name that FastRDB gives the class."""

from fastrdb import FastRDB

from .models import Chapter, User, Verse
from .schemas import ChapterRow, UserCreate, UserResponse, UserUpdate, VerseRow, VerseUpdate

user_crud = FastRDB[User, UserCreate, UserUpdate, UserResponse](
    User,
    UserResponse,
    pattern="user:email:{email}",
    list_pattern="user:page:{page}:limit:{limit}",
    invalidate_pattern_prefix="todo:*",  # another directory: users need not be told what to drop
    exp=6000,
)

chapter_crud = FastRDB[Chapter, ChapterRow, ChapterRow, ChapterRow](
    Chapter,
    ChapterRow,
    pattern="chapter:id:{id}",
    list_pattern="chapter:page:{page}:limit:{limit}",
)

verse_crud = FastRDB[Verse, VerseRow, VerseUpdate, VerseRow](
    Verse,
    VerseRow,
    pattern="verse:chapter_id:{chapter_id}:verse_id:{verse_id}",
    list_pattern="verse:chapter_id:{chapter_id}:page:{page}:limit:{limit}",
    invalidate_pattern_prefix="verse:chapter_id:{chapter_id}:*",
    exp=6000,
)
