"""Common words and filler sentences that the examples are made of."""

WORDS = """
about above across act add after again age ago air all almost alone along already also always among
animal another answer apple arm around arrive art ask autumn away baby back bad bag ball bank base basket
bear beautiful because become bed before begin behind believe bell below best better between big bird black
blue board boat body bone book born both bottle bottom bowl box boy branch bread break bridge bright bring
brother brown build burn bus busy butter buy cake call calm camera camp candle car card careful carry cat
catch chair chance change cheese cherry child choose city class clean clear clock close cloud coat coffee cold
color come common cook cool copper corner cost cotton could count country cousin cover cow create cross cry cup
cut dance dark daughter day deep deer desk detail dinner doctor dog door down draw dream dress drink drive drop
dry duck dust each early earth east easy eat edge egg eight empty end enough enter evening every example eye
face fact fall family far farm fast father feel fence field fight fill final find fine finger finish fire first
fish five flag flat floor flower fly fog follow food foot forest forget fork forty forward four fox free fresh
friend from fruit full funny game garden gate gentle girl give glad glass gold good grain grass great green
grey ground group grow guess hair half hall hammer hand happy hard hat have head hear heart heavy hello help
here high hill hold home honey hope horse hot hour house how hundred hungry hurry ice idea inside iron island
jacket join jump jumps keep key kind king kitchen kite knee knife know ladder lake lamp land large last late laugh
lazy leaf learn leave left lemon less letter level library light like line lion list listen little live long
look lose loud love low lucky lunch machine make man many map mark market matter meadow mean measure meet
middle milk mind minute mirror money monkey moon more morning mother mountain mouse mouth move much music
must name narrow near neck need nest never new next nice night nine noise north nose note nothing now number
ocean off often oil old once one onion only open orange order other our out over owl own page paint paper park
part party pass path peace pen pencil people pepper perhaps person phone picture piece pink place plain plan
plant plate play please pocket point pond poor potato pretty pull purple push put queen question quick quiet
quite rabbit rain reach read ready real red rest rice rich ride right ring rise river road rock roof room root
rope rose round run sad safe sail salt same sand save say school sea season seat second secret see seed sell
send seven shade shadow shallow shape share sharp sheep ship shirt shoe shop short should show side silent silver
simple since sing sister sit six sky sleep slow small smell smile smooth snow soft some son song soon sound
soup south space speak spoon spring square stand star start station stay steel step still stone stop store
storm story straight strange street strong student sugar summer sun sure sweet swim table tail take talk tall
tea teach team tell ten test than thank that the their then there these thick thin thing think third this three
through ticket tiger time tiny tired today together tomorrow tool top touch toward tower town train travel
tree trip true trust try turn turtle two uncle under until use valley very village violet visit voice wait
walk wall want warm wash watch water wave way weak wear weather week welcome well west wet what wheel when where
which while white who why wide wild wind window wine wing winter wish with wolf woman wonder wood wool word
work world write wrong yard year yellow yes yesterday you young zebra zero
""".split()

NAMES = """Anna Ben Clara David Emma Felix Grace Henry Ida Jack Kate Leo Maria Nora Oscar Paul Rosa Sam Tom Vera
Paris London Berlin Rome Tokyo Madrid France Germany Italy Spain Japan China India Brazil Canada Mars Europe
Monday Tuesday Friday Sunday January June July""".split()

FILLER = """
The grass is green.|The sky is blue.|The sun is yellow.|Here we go.|There and back again.
The river runs to the sea.|A bird sings in the old tree.|The train was late again.
We walk along the quiet street.|The children play in the garden.|It was a cold winter morning.
The market opens early in the day.|She reads a book by the window.|He drinks a cup of coffee.
The dog sleeps near the door.|Snow falls on the mountain.|The boat is small and white.
They talk about the weather.|The clock on the wall is slow.|A cat looks at the fish.
The bread is fresh and warm.|The lamp is on the table.|We found a stone on the beach.
The wind is strong today.|My friend lives in the next town.|The road is long and narrow.
The moon is bright tonight.|An apple falls from the tree.|The letter came on Monday.
The library is full of books.|The bridge is made of iron.|The horse runs over the field.
I like to swim in the lake.|The door of the house is red.|The soup needs more salt.
The music was loud and happy.|The teacher writes on the board.|Rain is good for the flowers.
The king has a golden ring.|The farmer has many sheep.|Nothing happened that day.
There is water in the bottle.|The ship sails to the north.|The forest is dark and deep.
""".replace("\n", "|").split("|")
FILLER = [sentence.strip() for sentence in FILLER if sentence.strip()]
