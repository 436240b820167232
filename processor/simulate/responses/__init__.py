"""Responses runs of the generator: planned item by item, told as events, and what must be published of each item.

Like the rest of the generator it shares no code with the core: what must come follows from the plan of an item.
"""
