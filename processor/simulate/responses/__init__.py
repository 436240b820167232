"""Generated Responses streams: planned item by item, emitted as events, with the expected result of each item.

Like the rest of the generator it shares no code with the core: the expected result follows from the plan of an item.
"""
