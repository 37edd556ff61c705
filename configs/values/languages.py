"""Codes of languages: which are accepted. Pure data.

Two-letter codes are checked against ISO 639-1. Of the 7,900 three-letter codes of ISO 639-3 only the form is checked.
"""

import re

_ISO_639_1 = """
aa ab ae af ak am an ar as av ay az ba be bg bh bi bm bn bo br bs ca ce ch co cr cs cu cv cy da de dv dz ee el en eo
es et eu fa ff fi fj fo fr fy ga gd gl gn gu gv ha he hi ho hr ht hu hy hz ia id ie ig ii ik io is it iu ja jv ka kg
ki kj kk kl km kn ko kr ks ku kv kw ky la lb lg li ln lo lt lu lv mg mh mi mk ml mn mr ms mt my na nb nd ne ng nl nn
no nr nv ny oc oj om or os pa pi pl ps pt qu rm rn ro ru rw sa sc sd se sg sh si sk sl sm sn so sq sr ss st su sv sw
ta te tg th ti tk tl tn to tr ts tt tw ty ug uk ur uz ve vi vo wa wo xh yi yo za zh zu
"""
_TAG = re.compile(r"(?P<language>[a-z]{2,3})([-_][a-z0-9]{2,8})*", re.IGNORECASE)


def primary_code(language: str) -> str:
    """Return the language of a tag in lower case (``sv`` of ``sv-SE``), "" of an empty one.

    Raises:
        ValueError: It is no BCP-47 tag, or its language is not in ISO 639.
    """
    if not language:
        return ""
    match = _TAG.fullmatch(language)
    code = match["language"].lower() if match else ""
    if not match or (len(code) == 2 and code not in _ISO_639_1.split()):
        raise ValueError(
            f"{language!r} is no language code; write one of ISO 639 or BCP-47, for example es, sv-SE, zh-TW or nan, "
            "or leave it empty for rules that hold for every script"
        )
    return code
