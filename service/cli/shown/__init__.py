"""What people see: tables and the words in them. Pure: takes views, returns renderables or text; prints nothing.

Whatever comes from a server or a recipe is put into ``Text``, so that square brackets in it are not markup. Colour is
never the only signal: every state is a word.
"""
