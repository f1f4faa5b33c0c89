"""Who works on what: a pure core (``core.py``) and a live driver around it (``service.py``)."""
