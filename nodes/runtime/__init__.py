"""The node side: one machine, its GPU, its folder of models, and the engines that serve them.

Nothing here knows Django's ORM, a database or another app (`make check` holds it): a node runs alone, beside
the models, and tells the gateway over HTTP what it has. `python manage.py node serve` starts it.
"""
