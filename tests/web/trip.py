"""A small memory to look at: the conversation of the demo, an end, facts with sources, a link, a nasty text."""

import json
from importlib import resources

from loci.core.clock import FixedClock, moment
from loci.records import Item, Memory

XSS = (
    'Mallory: <img src=x onerror="document.title=\'owned\'"><script>document.title="owned"</script> {{ 7*7 }} **bold**'
)


def fill(path):
    """Write it to a file, each piece at its own time."""
    clock = FixedClock()
    with Memory(path, clock=clock) as memory:

        def tell(date, what, **more):
            clock.now = moment(date)
            return memory.add(what, at=date, **more)

        for line in resources.files("loci.app").joinpath("demo.jsonl").read_text("utf-8").splitlines():
            row = json.loads(line)
            tell(row["at"], row["turns"], session=row["session"], source=f"chat {row['session']}", scope="demo/mara")
        job = memory.add("Bo: I work at the bakery on Rue Cler.", at="2023-05-03", known="2023-05-03", scope="demo/bo")
        tell("2024-01-10", "Bo: I work at the museum now.", scope="demo/bo", supersedes=job)
        said = {item.text: item.id for item in memory.items(scope="demo/mara")}
        kitten = said["Mara: I adopted a kitten, his name is Miso."]
        paw = said["Mara: Yes, the grey one with the white paw."]
        facts = [
            Item(text="Mara has a grey kitten called Miso", kind="fact", sources=(kitten, paw)),
            Item(text="Miso has a white paw", kind="fact", sources=(paw,)),
        ]
        then = {"at": "2023-05-13", "known": "2023-05-13", "scope": "demo/mara"}
        ids = memory.add(facts, **then)
        memory.add([Item(text="Miso can be told by his paw", kind="note", sources=(ids[1],))], **then)
        memory.link(ids[0], "same cat", ids[1], scope="demo/mara")
        memory.add(XSS, at="2023-06-06", known="2023-06-06", scope="demo/mallory")
    return path
