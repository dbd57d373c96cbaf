"""The two papers' claims in the small: what each says, what is measured for it here, and whether it holds.

`claim` and `verdict` say what a claim is and how it is judged; `list_*` are the claims; `measures` names what they are
judged by; `world` holds models, data and what was measured already; `variants` are the trainings; `runner` and `report`
put it together for `ragdiff reproduce`.
"""
