"""The models.

``base.py`` has the nouns and protocols, ``wan.py`` the one family so far, ``tiny.py`` a model that
needs no download, ``registry.py`` finds the right one.
"""
