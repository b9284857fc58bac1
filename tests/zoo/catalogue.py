"""All models of the zoo."""

from __future__ import annotations

from zoo import language, odd, timm_models, vision
from zoo.entry import Entry

ENTRIES: tuple[Entry, ...] = (*vision.ENTRIES, *language.ENTRIES, *timm_models.ENTRIES, *odd.ENTRIES)
