"""What can go wrong with a store.

StoreError
├── NotFound            no object of that name
├── Conflict            the object is not at the generation that the writer expected
├── Damaged             the object's content is not what was put
├── ObjectTooLarge      the object is larger than its reader allows
├── BadName             the name could leave the store, or means different things in different stores
└── StoreUnavailable    the store cannot be read or written at all
    └── StoreFull       no room is left
"""

from __future__ import annotations


class StoreError(Exception):
    """Base of everything that this package raises on purpose."""


class NotFound(StoreError):
    """Raised when an object is read that is not there."""


class Conflict(StoreError):
    """Raised when a put expected another generation than the store has: somebody else was first."""


class Damaged(StoreError):
    """Raised when a store that checks what it reads finds that an object's content is not what was put."""


class ObjectTooLarge(StoreError):
    """Raised when an object that somebody else put is larger than its reader allows."""


class BadName(StoreError):
    """Raised when an object's name is empty, absolute, has `..` in it, or characters that some store cannot keep."""


class StoreUnavailable(StoreError):
    """Raised when the store cannot be reached, read or written; the message says what to do."""


class StoreFull(StoreUnavailable):
    """Raised when a put finds no room; nothing of the object is left behind."""
