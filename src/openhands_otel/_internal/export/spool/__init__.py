"""What a process could not deliver: a file for each, and whoever sends it later.

``file.py`` is what stands in one, ``folder.py`` where they lie and whose they are, ``destination.py`` for whom one is
meant, ``delivery.py`` how one is sent. Nothing here knows how a process comes by its numbers; the owner of a file is
``process/spool_keeper.py``.
"""
