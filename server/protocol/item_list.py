"""The conversation as the wire sees it: an ordered, bounded list of items."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from aqaa.server.protocol.effects import ConversationItem

ROOT = "root"  # `previous_item_id` of an item that shall come first


class ItemList:
    """Items in order, found by id. Ids are unique; every stored item has one."""

    def __init__(
        self,
        most_items: int,
        most_characters: int,
        characters_of: Callable[[ConversationItem], int],
    ) -> None:
        self._most_items = most_items
        self._most_characters = most_characters
        self._characters_of = characters_of
        self._characters = 0
        self._items: dict[str, ConversationItem] = {}
        self._order: list[str] = []

    def __iter__(self) -> Iterator[ConversationItem]:
        return (self._items[item_id] for item_id in self._order)

    def __contains__(self, item_id: str) -> bool:
        return item_id in self._items

    def get(self, item_id: str) -> ConversationItem | None:
        """The item, or None."""
        return self._items.get(item_id)

    def last_id(self) -> str | None:
        """Id of the newest item, or None when there is none."""
        return self._order[-1] if self._order else None

    def previous_id(self, item_id: str) -> str | None:
        """Id of the item before this one, or None when it is the first."""
        index = self._order.index(item_id)
        return self._order[index - 1] if index else None

    def insert(self, item_id: str, item: ConversationItem, after: str | None = None) -> list[str]:
        """Put an item after another (`ROOT`: first; None: last).

        Returns:
            The ids of the oldest items that had to leave to keep within the bounds.

        Raises:
            KeyError: `after` is unknown.
        """
        if after == ROOT:
            index = 0
        elif after is None:
            index = len(self._order)
        elif after in self._items:
            index = self._order.index(after) + 1
        else:
            raise KeyError(after)
        self._items[item_id] = item
        self._order.insert(index, item_id)
        self._characters += self._characters_of(item)
        dropped = []
        while len(self._order) > 1 and self._is_full():
            oldest = next(known for known in self._order if known != item_id)
            self.remove(oldest)
            dropped.append(oldest)
        return dropped

    def _is_full(self) -> bool:
        too_long = self._characters > self._most_characters
        return too_long or len(self._order) > self._most_items

    def replace(self, item_id: str, item: ConversationItem) -> None:
        """Give a known item its new shape; an id that has been removed stays away."""
        if item_id in self._items:
            self._characters -= self._characters_of(self._items[item_id])
            self._characters += self._characters_of(item)
            self._items[item_id] = item

    def clear(self) -> list[str]:
        """Take all out; returns their ids."""
        ids, self._order, self._characters = self._order, [], 0
        self._items.clear()
        return ids

    def remove(self, item_id: str) -> bool:
        """Take an item out; False if it is not there."""
        item = self._items.pop(item_id, None)
        if item is None:
            return False
        self._characters -= self._characters_of(item)
        self._order.remove(item_id)
        return True
