"""Infer what the tables and columns of a source mean, and write the map and the recipe that say so.

Names suggest a meaning and values decide. A key has one value per row, the log's item column holds keys of the item
table, and a timestamp lies between 1990 and 2100. What the data cannot tell, such as the time zone of local times,
is asked for.
"""
