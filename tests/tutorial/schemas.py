"""What goes in and what comes out."""

from datetime import datetime

from pydantic import BaseModel, ConfigDict, EmailStr


class UserCreate(BaseModel):
    """A new user."""

    email: EmailStr
    name: str
    bio: str | None = None
    is_active: bool = True


class UserUpdate(BaseModel):
    """What may change of a user."""

    email: EmailStr | None = None
    name: str | None = None
    bio: str | None = None
    is_active: bool | None = None


class UserResponse(BaseModel):
    """A user, as shown."""

    model_config = ConfigDict(from_attributes=True)

    id: int
    email: str
    name: str
    bio: str | None = None
    is_active: bool
    created_at: datetime
    updated_at: datetime


class ChapterRow(BaseModel):
    """A chapter, in and out."""

    id: int
    title: str


class VerseRow(BaseModel):
    """A verse, in and out."""

    chapter_id: int
    verse_id: int
    text: str


class VerseUpdate(BaseModel):
    """What may change of a verse."""

    text: str | None = None
